# EgoReasoner beside ROS 2 jazzy, on a CPU:
#
#     docker build --file containers/jazzy.Dockerfile --tag egoreasoner:jazzy .
#     docker run --rm --network host --ipc host egoreasoner:jazzy \
#         image_topic:=/cam/image_raw camera_info_topic:=/cam/camera_info
#
# What stands behind the image's name are arguments of egoreasoner.launch.py. --ipc host is for shared memory with a camera
# outside, which needs the same user too: --user. The doctor: --entrypoint bash ... -c 'source /opt/ros/jazzy/setup.bash &&
# /opt/egoreasoner/lib/egoreasoner/egoreasoner_node doctor --set node.transport=r2r'.
#
# Not built so far: no machine with Docker and these images was at hand. The commands in it are those of docs/jetson.md and of
# `cargo xtask install`, which runs against a jazzy of Python wheels. Read against the rules of hadolint, not run through it.
FROM ros:jazzy-ros-base AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential ca-certificates clang curl libclang-dev python3 \
    && rm -rf /var/lib/apt/lists/*
ENV RUSTUP_HOME=/opt/rustup CARGO_HOME=/opt/cargo PATH=/opt/cargo/bin:$PATH
RUN curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
    | sh -s -- -y --no-modify-path --profile minimal --default-toolchain none
WORKDIR /src
# The compiler of rust-toolchain.toml, in a layer of its own.
COPY rust-toolchain.toml ./
RUN rustup toolchain install
COPY . .
# hadolint ignore=SC1091
RUN source /opt/ros/jazzy/setup.bash && cargo xtask install --prefix /opt/egoreasoner

FROM ros:jazzy-ros-base
COPY --from=build /opt/egoreasoner /opt/egoreasoner
RUN useradd --system --create-home egoreasoner
USER egoreasoner
WORKDIR /home/egoreasoner
# The image's own entry point sources ROS 2.
ENTRYPOINT ["/ros_entrypoint.sh", "bash", "-c", \
    "source /opt/egoreasoner/setup.bash && exec ros2 launch --noninteractive egoreasoner egoreasoner.launch.py \"$@\"", "launch"]
