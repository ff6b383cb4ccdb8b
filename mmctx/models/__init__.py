"""What networks are built of: backbones, their contextual layers, heads, losses, preprocessors."""
