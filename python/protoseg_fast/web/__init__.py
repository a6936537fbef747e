"""What the pages of this package share: their style, their templates' filters, their drawing.

Needs matplotlib and jinja2. The demo (:mod:`protoseg_fast.demo`) and the report of a cohort
(:mod:`protoseg_fast.report`) are made with it.
"""
