"""Where an application of this kind keeps its limiters."""
