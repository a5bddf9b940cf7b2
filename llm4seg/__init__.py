"""A frozen, pre-trained LLM layer inside a CNN for medical image segmentation.

A suffix of a name gives a tensor's shape, as in `images_NCHW` and `tokens_NTE`: N batch, C channels, K classes, S all
spatial axes (D slices, H rows, W columns), T tokens, E the LLM's width, L layers, P patches, O and I outputs and inputs
of a matrix (G groups of M entries where it is quantized); W workers in what they exchange; 1 an axis of that length.
"""
