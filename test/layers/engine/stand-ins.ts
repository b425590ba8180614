/** The providers of the clouds' packages, as far as a program's previews and updates need them. */
import type { StandIn } from "./project.js";

export const azure: StandIn = {
  name: "azure-native",
  version: "3.28.0",
  answers: {
    "azure-native:containerinstance:ContainerGroup": { name: "shop", instanceView: { state: "Running", events: [] } },
  },
};

export const kubernetes: StandIn = {
  name: "kubernetes",
  version: "4.34.2",
  answers: {
    "kubernetes:apps/v1:Deployment": { status: { availableReplicas: 1 } },
    "kubernetes:core/v1:Secret": {},
    "kubernetes:core/v1:Service": { status: { loadBalancer: { ingress: [{ ip: "192.0.2.7" }] } } },
    "kubernetes:networking.k8s.io/v1:NetworkPolicy": {},
  },
};
