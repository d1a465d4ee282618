"""The course's machinery: tasks, encoders, the toy language, figures and experiments, built on the core."""
