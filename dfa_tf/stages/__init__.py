"""The stages of a run: teacher, search, distillation, export."""
