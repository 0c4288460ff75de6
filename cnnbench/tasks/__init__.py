"""What a step means: the loss, the metrics, the pictures of a task. The engine does not know which task it runs.

Today classification. Dense prediction, detection and super-resolution have their place here as siblings.
"""
