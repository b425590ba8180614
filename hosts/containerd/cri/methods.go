package cri

import runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

const (
	noExecution  = "nobody enters a running container on this host"
	noStatistics = "the agent reads the kernel's own numbers"
	noStream     = "the agent asks again instead of listening"
	noCheckpoint = "what a container was is no signed image"
)

// methods are the calls of CRI with the reason why they are refused, empty when they are served. What is not listed is
// refused.
var methods = map[string]string{
	runtimev1.RuntimeService_Version_FullMethodName:            "",
	runtimev1.RuntimeService_Status_FullMethodName:             "",
	runtimev1.RuntimeService_RunPodSandbox_FullMethodName:      "",
	runtimev1.RuntimeService_StopPodSandbox_FullMethodName:     "",
	runtimev1.RuntimeService_RemovePodSandbox_FullMethodName:   "",
	runtimev1.RuntimeService_PodSandboxStatus_FullMethodName:   "",
	runtimev1.RuntimeService_ListPodSandbox_FullMethodName:     "",
	runtimev1.RuntimeService_CreateContainer_FullMethodName:    "",
	runtimev1.RuntimeService_StartContainer_FullMethodName:     "",
	runtimev1.RuntimeService_StopContainer_FullMethodName:      "",
	runtimev1.RuntimeService_RemoveContainer_FullMethodName:    "",
	runtimev1.RuntimeService_ListContainers_FullMethodName:     "",
	runtimev1.RuntimeService_ContainerStatus_FullMethodName:    "",
	runtimev1.RuntimeService_ReopenContainerLog_FullMethodName: "",
	runtimev1.ImageService_ListImages_FullMethodName:           "",
	runtimev1.ImageService_ImageStatus_FullMethodName:          "",
	runtimev1.ImageService_PullImage_FullMethodName:            "",
	runtimev1.ImageService_RemoveImage_FullMethodName:          "",

	runtimev1.RuntimeService_ExecSync_FullMethodName:    noExecution,
	runtimev1.RuntimeService_Exec_FullMethodName:        noExecution,
	runtimev1.RuntimeService_Attach_FullMethodName:      noExecution,
	runtimev1.RuntimeService_PortForward_FullMethodName: "ports are published by the datapath, under its policies",

	runtimev1.RuntimeService_CheckpointContainer_FullMethodName: noCheckpoint,
	runtimev1.RuntimeService_CheckpointPod_FullMethodName:       noCheckpoint,
	runtimev1.RuntimeService_RestorePod_FullMethodName:          noCheckpoint,

	runtimev1.RuntimeService_UpdateContainerResources_FullMethodName:  "a container with other limits is another container",
	runtimev1.RuntimeService_UpdatePodSandboxResources_FullMethodName: "a group with other limits is another sandbox",
	runtimev1.RuntimeService_UpdateRuntimeConfig_FullMethodName:       "the configuration is part of the host image",
	runtimev1.RuntimeService_RuntimeConfig_FullMethodName:             unused,

	runtimev1.RuntimeService_ContainerStats_FullMethodName:        noStatistics,
	runtimev1.RuntimeService_ListContainerStats_FullMethodName:    noStatistics,
	runtimev1.RuntimeService_PodSandboxStats_FullMethodName:       noStatistics,
	runtimev1.RuntimeService_ListPodSandboxStats_FullMethodName:   noStatistics,
	runtimev1.RuntimeService_ListMetricDescriptors_FullMethodName: noStatistics,
	runtimev1.RuntimeService_ListPodSandboxMetrics_FullMethodName: noStatistics,
	runtimev1.ImageService_ImageFsInfo_FullMethodName:             noStatistics,

	runtimev1.RuntimeService_GetContainerEvents_FullMethodName:      noStream,
	runtimev1.RuntimeService_StreamPodSandboxes_FullMethodName:      noStream,
	runtimev1.RuntimeService_StreamContainers_FullMethodName:        noStream,
	runtimev1.RuntimeService_StreamContainerStats_FullMethodName:    noStream,
	runtimev1.RuntimeService_StreamPodSandboxStats_FullMethodName:   noStream,
	runtimev1.RuntimeService_StreamPodSandboxMetrics_FullMethodName: noStream,
	runtimev1.ImageService_StreamImages_FullMethodName:              noStream,
}
