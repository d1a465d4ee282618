"""Data sets as tasks: what they look like, how they are read, tokenized, batched and scored."""

from mvp_lite.tasks.loading import load_task, make_task
from mvp_lite.tasks.specs import SPECS, TASKS, TaskSpec
from mvp_lite.tasks.task import EncodedTask, Task

__all__ = ["SPECS", "TASKS", "EncodedTask", "Task", "TaskSpec", "load_task", "make_task"]
