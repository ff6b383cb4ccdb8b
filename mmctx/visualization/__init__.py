"""Figures of what a contextual network did, drawn from plain arrays with matplotlib."""
