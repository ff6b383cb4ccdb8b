"""Speed of the contextual convolution and its networks, compared with what they replace."""
