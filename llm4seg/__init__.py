"""A frozen, pre-trained LLM layer inside a CNN for medical image segmentation.

A suffix of a name gives a tensor's shape, as in `images_NCHW` and `tokens_NTD`: N batch, C channels, K classes, S all
spatial axes (H rows, W columns), T tokens, D the LLM's width, O and I outputs and inputs of a matrix (G groups of E
entries where it is quantized); W workers in what they exchange; 1 an axis of that length.
"""
