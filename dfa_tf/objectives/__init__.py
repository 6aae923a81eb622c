"""The student's objective: cross entropy and the weighted losses of all methods and teachers."""
