"""Pages for people: what a camera's pools hold, and why; what an evaluation measured."""
