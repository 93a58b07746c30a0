"""What a node's run may end in, other than a result."""


class NodeError(Exception):
    """A node raises; `type` is the name of the exception that ComfyUI would report."""

    def __init__(self, message: str, type: str = "RuntimeError") -> None:
        super().__init__(message)
        self.type = type


class InterruptedRunError(Exception):
    """The run was interrupted."""


class GraphError(NodeError):
    """A graph that cannot be run to the end; `node` is where it shows."""

    def __init__(self, node: str, message: str, type: str) -> None:
        super().__init__(message, type)
        self.node = node
