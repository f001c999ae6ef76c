"""The joint space of pictures and texts: encoders, vocabularies and the modes."""
