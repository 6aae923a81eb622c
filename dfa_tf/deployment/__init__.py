"""TF Lite files: how they are made, what they do on this machine, what they tell of themselves."""
