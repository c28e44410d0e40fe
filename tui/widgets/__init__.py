"""The screens' widgets."""
