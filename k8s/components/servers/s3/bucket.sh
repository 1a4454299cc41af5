#!/bin/sh
# The bucket, and for each service a user whose key opens its own prefix and what it reads of others. Idempotent.
set -eu
endpoint=${S3_HOST:-minio:9000}
policies=${POLICIES:-/policies}
export MC_HOST_fleet="http://${MINIO_ROOT_USER}:${MINIO_ROOT_PASSWORD}@${endpoint}"
export MC_CONFIG_DIR=/tmp/mc

mc mb --ignore-existing fleet/lorafleet

user() { # name, access key, secret key
    mc admin policy create fleet "lorafleet-$1" "${policies}/$1.json"
    mc admin user add fleet "$2" "$3"
    # Attaching what is attached is an error to mc, so ask it afterwards.
    mc admin policy attach fleet "lorafleet-$1" --user "$2" ||
        mc admin policy entities fleet --user "$2" | grep -q "lorafleet-$1"
    # /readyz reads this object: its absence would be no fault, a refusal is one.
    printf '' | mc pipe "fleet/lorafleet/$1/ready"
}

user registry "${REGISTRY_ACCESS_KEY}" "${REGISTRY_SECRET_KEY}"
user trainer "${TRAINER_ACCESS_KEY}" "${TRAINER_SECRET_KEY}"
user evaluator "${EVALUATOR_ACCESS_KEY}" "${EVALUATOR_SECRET_KEY}"
user router "${ROUTER_ACCESS_KEY}" "${ROUTER_SECRET_KEY}"
user inference "${INFERENCE_ACCESS_KEY}" "${INFERENCE_SECRET_KEY}"
