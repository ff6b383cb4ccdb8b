"""Every item of a whole data set read, and everything that is wrong with it named."""
