"""The pytest plugin: options, collection, running, and a result for every case.

May import: `running`, `reports`, `results`, `machines`, `provision`, `judging`, `scenarios`, `paths`,
`errors`.
"""
