"""What the app writes or starts: orders to the driver, its own state, exports, commands."""
