"""Batches -> vectors on one device: devices, precision, modes and batch sizes by measuring, forward passes."""
