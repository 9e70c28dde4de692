"""Changes as data: what they do to which objects, how they are shown, made and taken back."""
