"""Keypoints: conventions (names), containers, detectors and file formats."""
