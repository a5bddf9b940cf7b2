"""A frozen, pre-trained LLM layer inside a CNN for medical image segmentation."""
