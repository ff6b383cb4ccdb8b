"""Speed of the contextual convolution and its networks, compared with the vanilla ones."""
