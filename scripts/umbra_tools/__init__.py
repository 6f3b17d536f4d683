"""What the scripts share: paths, messages, apt, configurations, disk images and emulators."""
