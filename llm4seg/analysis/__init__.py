"""What the block does to the features: places where they are read, measures, summaries; and a screen of layers."""
