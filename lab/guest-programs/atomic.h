// Atomic mode setting, as little of it as the programs here need: properties by name, one request, one commit.
#ifndef ATOMIC_H
#define ATOMIC_H

#include "kms.h"

#define MAX_PROPERTIES 64
/* The value of a plane's property `type`; no header for programs has it. */
#define PLANE_TYPE_PRIMARY 1
/* Objects and values of one request. */
#define MAX_CHANGES 8

/* One property of one object at a time: an object may be named more than once. */
struct atomic_request {
	uint32_t count;
	uint32_t objects[MAX_CHANGES];
	uint32_t counts[MAX_CHANGES];
	uint32_t properties[MAX_CHANGES];
	uint64_t values[MAX_CHANGES];
};

struct plane {
	uint32_t id;
	uint32_t fb_property;
};

static inline void atomic_set(struct atomic_request *request, uint32_t object, uint32_t property,
			      uint64_t value)
{
	uint32_t at = request->count++;

	request->objects[at] = object;
	request->counts[at] = 1;
	request->properties[at] = property;
	request->values[at] = value;
}

static inline void atomic_commit(int fd, const struct atomic_request *request, uint32_t flags)
{
	struct drm_mode_atomic command = {
		.flags = flags, .count_objs = request->count,
		.objs_ptr = (uintptr_t)request->objects, .count_props_ptr = (uintptr_t)request->counts,
		.props_ptr = (uintptr_t)request->properties, .prop_values_ptr = (uintptr_t)request->values,
	};
	kms_ioctl(fd, DRM_IOCTL_MODE_ATOMIC, &command, "ATOMIC");
}

/* Says to the kernel that this client understands more than the old calls. */
static inline void atomic_capability(int fd, uint64_t capability)
{
	struct drm_set_client_cap command = { .capability = capability, .value = 1 };

	kms_ioctl(fd, DRM_IOCTL_SET_CLIENT_CAP, &command, "SET_CLIENT_CAP");
}

/* The property's number, and its value now; ends the program when the object has none of this name. */
static inline uint32_t atomic_property(int fd, uint32_t object, uint32_t type, const char *name,
				       uint64_t *value)
{
	uint32_t properties[MAX_PROPERTIES];
	uint64_t values[MAX_PROPERTIES];
	struct drm_mode_obj_get_properties list = {
		.obj_id = object, .obj_type = type, .count_props = MAX_PROPERTIES,
		.props_ptr = (uintptr_t)properties, .prop_values_ptr = (uintptr_t)values,
	};
	kms_ioctl(fd, DRM_IOCTL_MODE_OBJ_GETPROPERTIES, &list, "OBJ_GETPROPERTIES");
	for (uint32_t i = 0; i < list.count_props && i < MAX_PROPERTIES; i++) {
		struct drm_mode_get_property property = { .prop_id = properties[i] };

		kms_ioctl(fd, DRM_IOCTL_MODE_GETPROPERTY, &property, "GETPROPERTY");
		if (strcmp(property.name, name) != 0)
			continue;
		if (value != NULL)
			*value = values[i];
		return properties[i];
	}
	fprintf(stderr, "object %u has no property %s\n", object, name);
	exit(1);
}

/* The primary plane that can be shown by the screen's CRTC. CRTCs have bits, by their place in the card's list. */
static inline struct plane atomic_primary_plane(const struct screen *screen)
{
	uint32_t planes[MAX_OBJECTS];
	struct drm_mode_get_plane_res list = {
		.plane_id_ptr = (uintptr_t)planes, .count_planes = MAX_OBJECTS,
	};
	atomic_capability(screen->fd, DRM_CLIENT_CAP_ATOMIC);
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETPLANERESOURCES, &list, "GETPLANERESOURCES");
	for (uint32_t i = 0; i < list.count_planes && i < MAX_OBJECTS; i++) {
		struct drm_mode_get_plane plane = { .plane_id = planes[i] };
		uint64_t type;

		kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETPLANE, &plane, "GETPLANE");
		atomic_property(screen->fd, planes[i], DRM_MODE_OBJECT_PLANE, "type", &type);
		if (type != PLANE_TYPE_PRIMARY || !(plane.possible_crtcs >> screen->index & 1))
			continue;
		return (struct plane){
			.id = planes[i],
			.fb_property = atomic_property(screen->fd, planes[i], DRM_MODE_OBJECT_PLANE,
						       "FB_ID", NULL),
		};
	}
	fprintf(stderr, "connector %u has no primary plane\n", screen->index);
	exit(1);
}

#endif
