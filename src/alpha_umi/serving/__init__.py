"""A trained run as a model that any OpenAI client can call.

`alpha_umi.serving.app.create_app` makes the application of an engine, `alpha_umi.serving.server.serve` runs it. Both
need the extra ``serve`` (fastapi, uvicorn, openai).
"""
