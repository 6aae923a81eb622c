"""What the training of a student minimises: the losses of methods and teachers, with their weights."""
