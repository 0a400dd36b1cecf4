"""A recording proxy: between an application and the model it uses today, and from its records to trajectories.

`alpha_umi.proxy.app.create_proxy` makes the application, `alpha_umi.proxy.server.serve` runs it (the extra ``serve``);
`alpha_umi.proxy.from_records.convert_records` turns what was recorded into trajectories, and needs no extra.
"""
