"""Dashboards, alerts and the table of metrics, generated from Python; `write` writes them all."""
