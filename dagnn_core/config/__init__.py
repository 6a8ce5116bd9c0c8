"""The configuration: one module per section of `params.yaml`, the only home of hyper-parameters.

A section knows nothing of the others, so that a step depends on the sections that it reads and on no more.
"""
