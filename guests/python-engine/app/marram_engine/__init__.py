"""The engine: what stands between the component's interfaces and a Python function."""
