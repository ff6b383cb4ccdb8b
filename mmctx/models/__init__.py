"""Parts of networks: backbones, their contextual layers, heads, losses, data preprocessors."""
