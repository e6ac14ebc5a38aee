#!/usr/bin/env bash
# Adds the packages of ROS 2 to an Ubuntu, as docs/jetson.md does by hand. Run as root; leaves apt's lists for what installs next.
set -euo pipefail

apt-get update
apt-get install --yes --no-install-recommends ca-certificates curl
releases=https://github.com/ros-infrastructure/ros-apt-source/releases
version=$(curl -fsSL "${releases/github.com/api.github.com/repos}/latest" | grep -F tag_name | awk -F\" '{print $4}')
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$UBUNTU_CODENAME")
curl -fsSL -o /tmp/ros2-apt-source.deb "$releases/download/$version/ros2-apt-source_$version.${codename}_all.deb"
dpkg -i /tmp/ros2-apt-source.deb
rm /tmp/ros2-apt-source.deb
apt-get update
