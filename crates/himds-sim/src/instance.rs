//! Instance metadata, and the way into it by path.

use serde_json::{Value, json};

use crate::options::Machine;

/// The metadata of the machine, as an Arc server or as an Azure VM.
pub(crate) fn metadata(machine: &Machine, imds: bool) -> Value {
    if imds {
        virtual_machine(machine)
    } else {
        arc_server(machine)
    }
}

/// The part of the metadata that a path like `/compute/name` leads to.
pub(crate) fn part<'a>(metadata: &'a Value, path: &str) -> Option<&'a Value> {
    metadata.pointer(path.strip_suffix('/').unwrap_or(path))
}

fn arc_server(machine: &Machine) -> Value {
    let mut compute = common(machine, false);
    extend(
        &mut compute,
        json!({
            "customData": "",
            "offer": "",
            "publicKeys": null,
            "publisher": "",
            "sku": "",
            "storageProfile": {},
            "version": "",
            "vmSize": "",
        }),
    );
    json!({ "compute": compute, "network": {} })
}

fn virtual_machine(machine: &Machine) -> Value {
    let mut compute = common(machine, true);
    extend(
        &mut compute,
        json!({
            "additionalCapabilities": { "hibernationEnabled": "false" },
            "evictionPolicy": "",
            "extendedLocation": { "name": "", "type": "" },
            "host": { "id": "" },
            "hostGroup": { "id": "" },
            "licenseType": "",
            "offer": "debian-13",
            "osProfile": { "adminUsername": "azureuser", "computerName": machine.name, "disablePasswordAuthentication": "true" },
            "priority": "",
            "publicKeys": [],
            "publisher": "debian",
            "sku": "13-gen2",
            "storageProfile": { "dataDisks": [], "imageReference": { "id": "", "offer": "debian-13", "publisher": "debian", "sku": "13-gen2", "version": "latest" } },
            "userData": "",
            "version": "0.20260101.1",
            "vmSize": "Standard_D2s_v5",
        }),
    );
    json!({ "compute": compute, "network": { "interface": [{
        "ipv4": {
            "ipAddress": [{ "privateIpAddress": "10.0.0.4", "publicIpAddress": "" }],
            "subnet": [{ "address": "10.0.0.0", "prefix": "24" }],
        },
        "ipv6": { "ipAddress": [] },
        "macAddress": "0022480A1B2C",
    }] } })
}

fn common(machine: &Machine, imds: bool) -> Value {
    json!({
        "azEnvironment": machine.az_environment,
        "isHostCompatibilityLayerVm": "false",
        "location": machine.location,
        "name": machine.name,
        "osType": "Linux",
        "placementGroupId": "",
        "plan": { "name": "", "product": "", "publisher": "" },
        "platformFaultDomain": if imds { "0" } else { "" },
        "platformUpdateDomain": if imds { "0" } else { "" },
        "provider": if imds { "Microsoft.Compute" } else { "Microsoft.HybridCompute" },
        "resourceGroupName": machine.resource_group,
        "resourceId": machine.resource_id(imds),
        "securityProfile": { "secureBootEnabled": "false", "virtualTpmEnabled": "false" },
        "subscriptionId": machine.subscription_id,
        "tags": "env:sim;owner:nobody",
        "tagsList": [{ "name": "env", "value": "sim" }, { "name": "owner", "value": "nobody" }],
        "vmId": machine.vm_id,
        "vmScaleSetName": "",
        "zone": "",
    })
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
