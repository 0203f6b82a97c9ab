"""Side-by-side measurements: gptnode against what a user would pick instead, on the same weights.

``python -m benchmarks ROW`` measures one row of the table in docs/explanation/performance.md;
README.md says how. Nothing in ``gptnode`` knows of this package.
"""
