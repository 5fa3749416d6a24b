"""What every room uses: errors, files, stopping, devices, units, progress, seeding."""
