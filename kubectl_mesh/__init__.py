"""kubectl mesh: says what is wrong with the routing of an Istio mesh, and why."""

__version__ = "0.1.0"
