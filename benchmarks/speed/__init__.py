"""How fast the contextual convolution and its networks are, beside what they replace."""
