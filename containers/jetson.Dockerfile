# EgoReasoner with CUDA beside ROS 2 jazzy, for a Jetson with JetPack 7.2 (Jetson Linux 39.2, CUDA 13.2, Ubuntu 24.04):
#
#     docker build --file containers/jetson.Dockerfile --build-arg CAPABILITY=87 --tag egoreasoner:jetson .    # 110 on a Thor
#     docker run --rm --runtime nvidia --network host --ipc host --volume /opt/weights:/weights:ro egoreasoner:jetson \
#         weights:=/weights device:=cuda image_topic:=/cam/image_raw camera_info_topic:=/cam/camera_info
#
# From JetPack 7 on Jetsons run the CUDA images of 64-bit ARM servers, and the driver comes from the host by --runtime nvidia.
# JetPack 6 does not: there, docs/jetson.md by hand inside nvcr.io/nvidia/l4t-jetpack:r36.4.0. One image serves one capability.
#
# Not built so far: no Jetson, no Docker and no 64-bit ARM were at hand, the image's tag is made of its scheme, and kernels for 110
# were compiled nowhere. Build it on the device: under qemu the kernels take hours. Read against the rules of hadolint, not run
# through it.
ARG CUDA=13.2.0
ARG UBUNTU=24.04
FROM nvcr.io/nvidia/cuda:${CUDA}-devel-ubuntu${UBUNTU} AS build
ARG ROS=jazzy
ARG CAPABILITY=87
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive
COPY containers/ros_source.sh /tmp/
# hadolint ignore=DL3008
RUN bash /tmp/ros_source.sh \
    && apt-get install --yes --no-install-recommends build-essential clang git libclang-dev python3 "ros-$ROS-ros-base" \
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
RUN source "/opt/ros/$ROS/setup.bash" \
    && cargo xtask cuda --capability "$CAPABILITY" -- \
        cargo xtask ros2 -- cargo build --release --package node --features ros,cuda \
    && cargo xtask install --prefix /opt/egoreasoner --node target/release/node

FROM nvcr.io/nvidia/cuda:${CUDA}-runtime-ubuntu${UBUNTU}
ARG ROS=jazzy
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY containers/ros_source.sh /tmp/
# hadolint ignore=DL3008
RUN bash /tmp/ros_source.sh \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "ros-$ROS-ros-base" \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/egoreasoner /opt/egoreasoner
# The GPU's device files belong to this group on a Jetson.
RUN useradd --system --create-home --groups video egoreasoner
ENV ROS_DISTRO=$ROS
USER egoreasoner
WORKDIR /home/egoreasoner
ENTRYPOINT ["bash", "-c", \
    "source /opt/ros/$ROS_DISTRO/setup.bash && source /opt/egoreasoner/setup.bash && exec ros2 launch --noninteractive egoreasoner egoreasoner.launch.py \"$@\"", "launch"]
