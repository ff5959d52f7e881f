"""Alarms: rules, life of an alarm, history."""
