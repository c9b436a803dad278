"""tracefwd: an Istio mesh's Zipkin spans in, Wavefront spans, span logs, RED metrics and heartbeats out.

Read ``pipeline.py`` first, then ``model.py``, then ``service/worker.py``; ARCHITECTURE.md has the map.
"""

__version__ = "0.1.0"
