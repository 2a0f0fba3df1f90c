"""Holds the pods of rendered manifests to the *restricted* pod security standard, which the namespace enforces, and to
a read-only root file system besides: https://kubernetes.io/docs/concepts/security/pod-security-standards/

    restricted.py FILE ...       a line for each thing that is wrong; fails if there is one, or if there are no pods
"""

import sys

import yaml

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def wrong(pod):
    """What the standard forbids in the specification of a pod."""
    common = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    if common.get("sysctls"):
        yield "sysctls"
    for container in pod.get("initContainers", []) + pod["containers"]:
        for what in wrong_container(container, common):
            yield f"container {container['name']}: {what}"


def wrong_container(container, common):
    own = container.get("securityContext", {})
    both = common | own
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if both.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if both.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccompProfile"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    for added in set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capability {added}"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"


def main(files):
    pods, found = 0, []
    for file in files:
        for document in yaml.safe_load_all(open(file)):
            spec = document.get("spec", {})
            if document["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"):
                pod = spec if document["kind"] == "Pod" else spec["template"]["spec"]
                pods += 1
                found += [f"{file}: {document['metadata']['name']}: {what}" for what in wrong(pod)]
    print("\n".join(found) or f"manifests: {pods} pods are restricted")
    sys.exit(bool(found) or not pods)


main(sys.argv[1:])
