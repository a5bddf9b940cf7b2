"""What the block does to the features: measures of tokens, attention and gradients, as functions of tensors alone."""
