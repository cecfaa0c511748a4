"""Arrays as pictures, sheets and plots, independent of Lightning and torch."""
