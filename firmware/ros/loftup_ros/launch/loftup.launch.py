"""Loads the node into a component container.

ros2 launch loftup_ros loftup.launch.py model_file_path:=robot.loftup image:=/camera/image_raw \\
    detection_classes:="mug, cable"
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode
from launch_ros.parameter_descriptions import ParameterValue

# Name, default, type, description.
PARAMETERS = [
    ("model_file_path", None, str, "Bundle made by `loftup convert`"),
    ("engine", "auto", str, "auto, tensorrt or cpu"),
    ("precision", "auto", str, "auto, fp32, fp16, int8 or fp16-weights"),
    ("cache_dir", "", str, "Where TensorRT's engines are cached; empty for the user's cache"),
    ("output_width", "0", int, "Columns of the outputs; 0 for those of the model's input"),
    ("output_height", "0", int, "Rows of the outputs; 0 for those of the model's input"),
    ("class_head", "", str, "Head of classes or words; empty for the only one"),
    ("depth_head", "", str, "Head of depth; empty for the only one"),
    ("upsampler", "bundle", str, "bundle, or jbu for joint bilateral upsampling"),
    ("detection_min_area", "64", int, "Pixels of the output that a region must have to be a detection"),
]


def container(context):
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, _, kind, _ in PARAMETERS}
    # Only with names: an empty list has no element type, and the node would refuse it.
    names = LaunchConfiguration("detection_classes").perform(context).split(",")
    names = [name.strip() for name in names if name.strip()]
    if names:
        parameters["detection_classes"] = names
    node = ComposableNode(
        package="loftup_ros",
        plugin="loftup_ros::LoftupNode",
        name="loftup",
        parameters=[parameters],
        remappings=[("image", LaunchConfiguration("image"))],
        extra_arguments=[{"use_intra_process_comms": True}],
    )
    return [
        ComposableNodeContainer(
            name="loftup_container",
            namespace="",
            package="rclcpp_components",
            executable="component_container_mt",
            composable_node_descriptions=[node],
            output="screen",
        )
    ]


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, _, description in PARAMETERS
    ]
    arguments += [
        DeclareLaunchArgument("image", default_value="image", description="Topic of the camera"),
        DeclareLaunchArgument(
            "detection_classes", default_value="",
            description="Classes whose connected regions are published as detections, separated by commas"),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=container)])
