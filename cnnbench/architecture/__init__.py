"""The architecture of a net as a drawing: how it is wired, what that amounts to, where it goes on the page."""
