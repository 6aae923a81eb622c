"""The story: teacher, search, distillation, export."""
